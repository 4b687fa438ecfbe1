//! The repository checks itself: crates and what they may name, headers, lengths, banned marks, documents. Tests only.

#[cfg(test)]
mod crates;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod text;
