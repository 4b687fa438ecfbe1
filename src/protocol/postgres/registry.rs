//! stub
#[derive(Debug, Default)]
pub struct Registry;
impl Registry {
    pub fn on_parse(&mut self, _n: &[u8], _b: &[u8]) {}
    pub fn on_close_statement(&mut self, _n: &[u8]) {}
    pub fn on_statement(&mut self, _s: &[u8]) {}
    pub fn statement_text(&self, _n: &[u8]) -> Option<&[u8]> {
        None
    }
    pub fn on_complete(&mut self, _t: &[u8]) {}
    pub fn on_parse_complete(&mut self) {}
    pub fn on_error(&mut self) {}
    pub fn on_ready(&mut self, _s: u8) {}
}
