//! Where the sink's messages go: straight to the connection, or through a spool.

use std::time::Duration;

use super::spooler::{Spooler, Totals};
use crate::mqtt::{Message, Publisher, Stats};

pub enum Outlet {
    Direct(Publisher),
    Spooled(Spooler),
}

impl Outlet {
    /// Never waits.
    pub fn publish(&self, message: Message) {
        match self {
            Self::Direct(publisher) => publisher.publish(message),
            Self::Spooled(spooler) => spooler.publish(message),
        }
    }

    /// Waits until the broker has everything, for at most `timeout` and only as long as that can be hoped for.
    pub fn drain(&self, timeout: Duration) -> bool {
        match self {
            Self::Direct(publisher) => publisher.drain(timeout),
            Self::Spooled(spooler) => spooler.drain(timeout),
        }
    }

    /// Makes [`Self::drain`] return at once, until called with `false`.
    pub fn interrupt(&self, interrupted: bool) {
        match self {
            Self::Direct(publisher) => publisher.interrupt(interrupted),
            Self::Spooled(spooler) => spooler.interrupt(interrupted),
        }
    }

    /// Ends it: what is left is counted as dropped, or kept in the spool.
    pub fn close(&self) {
        match self {
            Self::Direct(publisher) => publisher.close(),
            Self::Spooled(spooler) => spooler.close(),
        }
    }

    pub fn stats(&self) -> (Stats, Option<Totals>) {
        match self {
            Self::Direct(publisher) => (publisher.stats(), None),
            Self::Spooled(spooler) => {
                let (stats, totals) = spooler.stats();
                (stats, Some(totals))
            }
        }
    }
}
