//! Why a stored value was not understood: a sentence for the one who has to look at the file.

pub type Misread = String;

pub fn misread(error: impl std::fmt::Display) -> Misread {
    error.to_string()
}
