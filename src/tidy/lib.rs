//! The repository checks itself: dependencies of crates, headers, lengths, banned marks, documents. Tests only.

#[cfg(test)]
mod crates;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod text;
