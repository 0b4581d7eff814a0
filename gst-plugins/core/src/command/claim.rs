//! Who owns an instance id.
//!
//! A process that wants an id listens to its status topic and publishes one status there that is not retained
//! (`claiming`). A process that has the id hears it and publishes its own status anew; then the newcomer gives up.
//! A retained status alone proves nothing: its process may have died with the broker. The machine knows no clock and
//! no network: times are nanoseconds of any clock that does not go backwards.

use super::Status;

/// How long an owner that the broker remembers has to speak up.
const PATIENCE_NS: u64 = 2_000_000_000;
/// How long the broker may take to give back what was published.
const ECHO_NS: u64 = 5_000_000_000;

/// What to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    Nothing,
    /// Publish the claiming status, not retained.
    Ask,
    /// The broker has not given back what was published: ask again, and say so. A broker that does not let a client
    /// publish on a topic drops it without a word.
    Unheard,
    /// The id is ours: announce it.
    Claimed,
    /// Somebody else wants our id, or the broker holds something else: publish our status anew.
    Assert,
    /// The id belongs to another process, named by its client id.
    Taken(String),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Not asked yet, or the connection broke before an answer.
    Idle,
    Asked {
        until_ns: u64,
    },
    /// Our question has come back, and the broker remembers an owner that may still answer.
    Waiting {
        until_ns: u64,
    },
    Owner,
    Lost,
}

/// One process's claim to one id.
#[derive(Clone, Debug)]
pub struct Claim {
    client_id: String,
    started: String,
    phase: Phase,
    remembered: bool,
}

impl Claim {
    /// `client_id` and `started` as in this process's own status.
    pub fn new(client_id: &str, started: &str) -> Self {
        Self { client_id: client_id.into(), started: started.into(), phase: Phase::Idle, remembered: false }
    }

    pub fn is_owner(&self) -> bool {
        self.phase == Phase::Owner
    }

    /// The subscription to the status topic stands (again).
    pub fn subscribed(&mut self, now_ns: u64) -> Answer {
        match self.phase {
            Phase::Owner => Answer::Assert,
            Phase::Lost => Answer::Nothing,
            // What the broker remembers may have come before the word that the subscription stands.
            Phase::Idle | Phase::Asked { .. } | Phase::Waiting { .. } => {
                self.phase = Phase::Asked { until_ns: now_ns.saturating_add(ECHO_NS) };
                Answer::Ask
            }
        }
    }

    /// A status came on the topic; `retained`: out of the broker's memory.
    pub fn heard(&mut self, status: &Status, retained: bool, now_ns: u64) -> Answer {
        let own = status.client_id == self.client_id;
        match self.phase {
            // The last will of a connection that is long back, or an owner's that is long gone.
            Phase::Owner if !status.status.is_alive() => Answer::Assert,
            Phase::Owner if own || retained => Answer::Nothing,
            Phase::Owner if status.claiming || self.is_older_than(status) => Answer::Assert,
            Phase::Asked { .. } if own && !retained && !self.remembered => {
                self.phase = Phase::Owner;
                Answer::Claimed
            }
            Phase::Asked { .. } if own && !retained => {
                self.phase = Phase::Waiting { until_ns: now_ns.saturating_add(PATIENCE_NS) };
                Answer::Nothing
            }
            Phase::Idle | Phase::Asked { .. } | Phase::Waiting { .. } if own || !status.status.is_alive() => {
                Answer::Nothing
            }
            Phase::Idle | Phase::Asked { .. } | Phase::Waiting { .. } if retained => {
                self.remembered = true;
                Answer::Nothing
            }
            Phase::Idle | Phase::Lost => Answer::Nothing,
            // Two newcomers: the older one goes on.
            Phase::Asked { .. } | Phase::Waiting { .. } if status.claiming && self.is_older_than(status) => {
                Answer::Ask
            }
            Phase::Owner | Phase::Asked { .. } | Phase::Waiting { .. } => self.lose(status),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ns: u64) -> Answer {
        match self.phase {
            Phase::Waiting { until_ns } if now_ns >= until_ns => {
                self.phase = Phase::Owner;
                Answer::Claimed
            }
            Phase::Asked { until_ns } if now_ns >= until_ns => {
                self.phase = Phase::Asked { until_ns: now_ns.saturating_add(ECHO_NS) };
                Answer::Unheard
            }
            _ => Answer::Nothing,
        }
    }

    /// Until when [`Self::tick`] has nothing to say.
    pub fn deadline_ns(&self) -> Option<u64> {
        match self.phase {
            Phase::Asked { until_ns } | Phase::Waiting { until_ns } => Some(until_ns),
            _ => None,
        }
    }

    fn lose(&mut self, to: &Status) -> Answer {
        self.phase = Phase::Lost;
        Answer::Taken(to.client_id.clone())
    }

    fn is_older_than(&self, other: &Status) -> bool {
        (&self.started, &self.client_id) < (&other.started, &other.client_id)
    }
}
