//! Recorded files: how they are named, how they are written ([`mp4`]), how they are read back after a power cut or
//! for an export ([`mod@read`], [`join`]), when something is recorded ([`trigger`]), what is kept in memory before that
//! ([`prebuffer`]), and pieces that somebody asks for ([`clip`]).
//!
//! A segment is one fragmented MP4 file (ISO/IEC 14496-12, 8.8): everything that a player needs stands in front, and
//! each fragment is complete in itself, so a file whose writing stopped at any byte plays up to its last whole one.

pub mod chart;
pub mod clip;
pub mod join;
pub mod mp4;
pub mod name;
pub mod prebuffer;
pub mod read;
pub mod trigger;

#[cfg(test)]
mod tests;
