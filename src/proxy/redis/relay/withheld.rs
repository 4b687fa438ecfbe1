//! Which replies clients get only when the shadow has what they answer (`write_consistency both`): what of an output is withheld, and what is asked.
//! What it does to clients is in `confirming`. Lives on one core.

use std::collections::VecDeque;

use crate::contract::ClientKey;

/// What of one client's output is withheld: all of it but its first bytes.
#[derive(Debug, Default)]
pub struct Withheld {
    /// So many bytes may be delivered.
    pub delivered: usize,
    /// Up to where the output is confirmed together with which ticket; the oldest first.
    pub marks: VecDeque<(u64, usize)>,
    /// It is in the list of clients for which a ticket is to be asked.
    pub listed: bool,
}

/// The confirmations of one relay.
#[derive(Debug, Default)]
pub struct Confirming {
    pub on: bool,
    pub last_ticket: u64,
    /// Asked for and not answered, with the clients it concerns.
    pub outstanding: Option<(u64, Vec<ClientKey>)>,
    /// Clients that have output since.
    pub waiting: Vec<ClientKey>,
    pub to_ask: Option<u64>,
}

impl Confirming {
    /// Under another plan.
    pub fn stay_on_if(&mut self, followed: bool) {
        self.on &= followed;
    }

    pub fn take_ticket(&mut self) -> Option<u64> {
        self.to_ask.take()
    }

    /// A withheld client has output.
    pub fn wait_for(&mut self, client: ClientKey) {
        self.waiting.push(client);
    }
}

impl Withheld {
    /// Takes what may be delivered out of the output.
    pub fn take(&mut self, output: &mut Vec<u8>) -> Option<Vec<u8>> {
        let count = std::mem::take(&mut self.delivered).min(output.len());
        if count == 0 {
            return None;
        }
        self.marks.iter_mut().for_each(|(_, upto)| *upto = upto.saturating_sub(count));
        let rest = output.split_off(count);
        Some(std::mem::replace(output, rest))
    }

    pub fn confirm(&mut self, ticket: u64) {
        while let Some((_, upto)) = self.marks.pop_front_if(|(of, _)| *of <= ticket) {
            self.delivered = self.delivered.max(upto);
        }
    }
}
