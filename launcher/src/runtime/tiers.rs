//! Storage tiers that recorders miss: one line in the log for an outage, however many cameras record to the tier.

use tracing::{info, warn};

use super::Instance;

impl Instance {
    /// The recorder of a camera misses a tier, and why; or with `None` does no longer.
    pub(super) fn note_tier(&mut self, id: u32, tier: &str, location: &str, wrong: Option<String>) {
        let place = (tier.to_owned(), location.to_owned());
        let known =
            self.branches.iter().any(|(other, branch)| *other != id && branch.missed_tiers.contains(&place));
        let Some(branch) = self.branches.get_mut(&id) else { return };
        match wrong {
            Some(reason) => {
                if branch.missed_tiers.insert(place) && !known {
                    warn!(event = "tier.failing", source_id = id, tier, location, "{tier} tier: {reason}");
                }
            }
            None => {
                if branch.missed_tiers.remove(&place) && !known {
                    info!(
                        event = "tier.ready",
                        source_id = id,
                        tier,
                        location,
                        "{tier} tier: {location} is back"
                    );
                }
            }
        }
    }
}
