//! Who is analysed next when many cameras share one engine.
//!
//! Every camera owns one slot, and a slot holds at most one waiting job: the newest. Offering another replaces
//! it, so a busy engine costs old frames and never a growing queue. The slot that was served longest ago comes
//! first, so no camera starves another: with `n` slots, at most `n - 1` jobs of others are started before a
//! waiting one, whatever the others' rates. One slot is never in two batches at the same time, which keeps a
//! camera's results in order.

/// Names a slot. Never used again after the slot is detached.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SlotId {
    index: usize,
    serial: u64,
}

/// How jobs are gathered into batches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Batching {
    /// Most jobs in one batch, at least 1.
    pub max: usize,
    /// How long the oldest job may wait for company, in nanoseconds.
    pub timeout_ns: u64,
}

/// What a worker should do now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Run the jobs that were put out; each of their slots must be reported [`done`](Slots::done) after.
    Run,
    /// Nothing is due before this time, in the caller's nanoseconds, unless something is offered earlier.
    WaitUntil(u64),
    /// Nothing that could run is waiting.
    Idle,
}

#[derive(Debug)]
struct Waiting<T> {
    since_ns: u64,
    job: T,
}

#[derive(Debug)]
struct Slot<T> {
    serial: u64,
    waiting: Option<Waiting<T>>,
    running: bool,
    /// Number of the job that was last started from here; 0 for none yet.
    served: u64,
}

/// The slots of one engine.
#[derive(Debug)]
pub struct Slots<T> {
    entries: Vec<Option<Slot<T>>>,
    serial: u64,
    served: u64,
    /// Reused by `take`: served, since and index of the slots that could run.
    candidates: Vec<(u64, u64, usize)>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), serial: 0, served: 0, candidates: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// One more camera.
    pub fn attach(&mut self) -> SlotId {
        self.serial += 1;
        let slot = Slot { serial: self.serial, waiting: None, running: false, served: 0 };
        let index = if let Some(index) = self.entries.iter().position(Option::is_none) {
            self.entries[index] = Some(slot);
            index
        } else {
            self.entries.push(Some(slot));
            self.entries.len() - 1
        };
        SlotId { index, serial: self.serial }
    }

    /// The camera is gone. Returns the job that was waiting; one that is running ends by itself.
    pub fn detach(&mut self, id: SlotId) -> Option<T> {
        self.slot(id)?;
        self.entries[id.index].take().and_then(|slot| slot.waiting).map(|waiting| waiting.job)
    }

    /// How many cameras there are.
    pub fn attached(&self) -> usize {
        self.entries.iter().flatten().count()
    }

    /// How many jobs wait.
    pub fn waiting(&self) -> usize {
        self.entries.iter().flatten().filter(|slot| slot.waiting.is_some()).count()
    }

    /// Whether this slot's job waits, and no other.
    pub fn is_only(&self, id: SlotId) -> bool {
        self.waiting() == 1
            && self.entries.get(id.index).is_some_and(|entry| {
                entry.as_ref().is_some_and(|slot| slot.serial == id.serial && slot.waiting.is_some())
            })
    }

    /// A new job for a slot. `Ok` holds the one that was waiting and is now replaced; the waiting time goes on.
    /// `Err` returns the job where the slot does not exist any more.
    pub fn offer(&mut self, id: SlotId, now_ns: u64, job: T) -> Result<Option<T>, T> {
        let Some(slot) = self.slot(id) else { return Err(job) };
        if let Some(waiting) = &mut slot.waiting {
            return Ok(Some(std::mem::replace(&mut waiting.job, job)));
        }
        slot.waiting = Some(Waiting { since_ns: now_ns, job });
        Ok(None)
    }

    /// Takes back a job that was not started yet.
    pub fn withdraw(&mut self, id: SlotId) -> Option<T> {
        self.slot(id)?.waiting.take().map(|waiting| waiting.job)
    }

    /// Puts the jobs to run now into `out`. A batch starts when it is full, when its oldest job has waited long
    /// enough, or when every camera that could join has joined.
    pub fn take(&mut self, now_ns: u64, batching: Batching, out: &mut Vec<(SlotId, T)>) -> Next {
        out.clear();
        self.candidates.clear();
        let max = batching.max.max(1);
        let (mut idle, mut oldest) = (0, None);
        for (index, slot) in self.entries.iter().enumerate() {
            let Some(slot) = slot.as_ref().filter(|slot| !slot.running) else { continue };
            idle += 1;
            if let Some(waiting) = &slot.waiting {
                oldest = Some(oldest.unwrap_or(waiting.since_ns).min(waiting.since_ns));
                self.candidates.push((slot.served, waiting.since_ns, index));
            }
        }
        let Some(oldest) = oldest else { return Next::Idle };
        let (ready, due) = (self.candidates.len(), oldest.saturating_add(batching.timeout_ns));
        if ready < max && ready < idle && now_ns < due {
            return Next::WaitUntil(due);
        }
        self.candidates.sort_unstable();
        for &(_, _, index) in self.candidates.iter().take(max) {
            let Some(slot) = &mut self.entries[index] else { continue };
            let Some(waiting) = slot.waiting.take() else { continue };
            self.served += 1;
            slot.served = self.served;
            slot.running = true;
            out.push((SlotId { index, serial: slot.serial }, waiting.job));
        }
        Next::Run
    }

    /// A job that [`take`](Self::take) gave out has ended.
    pub fn done(&mut self, id: SlotId) {
        if let Some(slot) = self.slot(id) {
            slot.running = false;
        }
    }

    /// Takes every waiting job, for shutting down.
    pub fn drain(&mut self) -> Vec<T> {
        self.entries
            .iter_mut()
            .flatten()
            .filter_map(|slot| slot.waiting.take())
            .map(|waiting| waiting.job)
            .collect()
    }

    fn slot(&mut self, id: SlotId) -> Option<&mut Slot<T>> {
        self.entries.get_mut(id.index)?.as_mut().filter(|slot| slot.serial == id.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: Batching = Batching { max: 1, timeout_ns: 0 };

    #[test]
    fn the_only_one_is_known() {
        let mut slots = Slots::default();
        let (a, b) = (slots.attach(), slots.attach());
        assert!(!slots.is_only(a));
        slots.offer(a, 0, 1).unwrap();
        assert!(slots.is_only(a) && !slots.is_only(b));
        slots.offer(b, 0, 2).unwrap();
        assert!(!slots.is_only(a) && !slots.is_only(b));
        slots.detach(a);
        assert!(!slots.is_only(a) && slots.is_only(b));
    }

    fn take<T>(slots: &mut Slots<T>, now_ns: u64, batching: Batching) -> (Next, Vec<(SlotId, T)>) {
        let mut out = Vec::new();
        let next = slots.take(now_ns, batching, &mut out);
        (next, out)
    }

    #[test]
    fn the_newest_frame_replaces_the_waiting_one() {
        let mut slots = Slots::default();
        let (a, b) = (slots.attach(), slots.attach());
        assert_eq!(slots.offer(a, 0, "a1"), Ok(None));
        assert_eq!(slots.offer(b, 1, "b1"), Ok(None));
        assert_eq!(slots.offer(a, 2, "a2"), Ok(Some("a1")));
        assert_eq!(take(&mut slots, 3, ONE), (Next::Run, vec![(a, "a2")]));
        assert_eq!(take(&mut slots, 3, ONE), (Next::Run, vec![(b, "b1")]));
        assert_eq!(take(&mut slots, 3, ONE).0, Next::Idle);
    }

    #[test]
    fn a_running_slot_waits_for_itself_and_lets_others_pass() {
        let mut slots = Slots::default();
        let (a, b) = (slots.attach(), slots.attach());
        slots.offer(a, 0, 1).unwrap();
        assert_eq!(take(&mut slots, 0, ONE).1, [(a, 1)]);
        slots.offer(a, 1, 2).unwrap();
        assert_eq!(take(&mut slots, 1, ONE).0, Next::Idle, "a is running");
        slots.offer(b, 2, 3).unwrap();
        assert_eq!(take(&mut slots, 2, ONE).1, [(b, 3)]);
        slots.done(a);
        assert_eq!(take(&mut slots, 2, ONE).1, [(a, 2)]);
    }

    #[test]
    fn a_batch_starts_when_full_when_late_or_when_everybody_is_there() {
        let batching = Batching { max: 3, timeout_ns: 100 };
        let mut slots = Slots::default();
        let ids: Vec<_> = (0..4).map(|_| slots.attach()).collect();
        slots.offer(ids[0], 10, 0).unwrap();
        assert_eq!(take(&mut slots, 20, batching).0, Next::WaitUntil(110));
        slots.offer(ids[1], 30, 1).unwrap();
        assert_eq!(take(&mut slots, 109, batching).0, Next::WaitUntil(110));
        assert_eq!(take(&mut slots, 110, batching).1, [(ids[0], 0), (ids[1], 1)], "late");

        slots.offer(ids[2], 120, 2).unwrap();
        assert_eq!(take(&mut slots, 120, batching).0, Next::WaitUntil(220));
        slots.offer(ids[3], 121, 3).unwrap();
        assert_eq!(
            take(&mut slots, 121, batching).1,
            [(ids[2], 2), (ids[3], 3)],
            "everybody else is running"
        );

        for &id in &ids {
            slots.done(id);
        }
        for (i, &id) in ids.iter().enumerate() {
            slots.offer(id, 200, i).unwrap();
        }
        assert_eq!(take(&mut slots, 200, batching).1, [(ids[0], 0), (ids[1], 1), (ids[2], 2)], "full");
        assert_eq!(slots.waiting(), 1);
    }

    #[test]
    fn a_detached_slot_is_gone_for_good() {
        let mut slots = Slots::default();
        let old = slots.attach();
        slots.offer(old, 0, "old").unwrap();
        assert_eq!(slots.detach(old), Some("old"));
        let new = slots.attach();
        assert_ne!(old, new);
        assert_eq!(slots.offer(old, 1, "late"), Err("late"));
        slots.done(old);
        assert_eq!(slots.detach(old), None);
        slots.offer(new, 1, "new").unwrap();
        assert_eq!(slots.withdraw(new), Some("new"));
        assert_eq!(slots.withdraw(new), None);
        slots.offer(new, 1, "newer").unwrap();
        assert_eq!(slots.drain(), ["newer"]);
        assert_eq!((slots.attached(), slots.waiting()), (1, 0));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Offer(usize),
        Take,
        Done(usize),
        Withdraw(usize),
        Reattach(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0usize..6).prop_map(Step::Offer),
            3 => Just(Step::Take),
            3 => (0usize..8).prop_map(Step::Done),
            1 => (0usize..6).prop_map(Step::Withdraw),
            1 => (0usize..6).prop_map(Step::Reattach),
        ];
        proptest::collection::vec(step, 0..300)
    }

    proptest! {
        /// Whatever happens: a job comes out under the slot it went in, once, the newest only, and never two of
        /// one slot at a time.
        #[test]
        fn jobs_stay_with_their_slot(steps in steps(), max in 1usize..5, timeout_ns in 0u64..20) {
            let batching = Batching { max, timeout_ns };
            let mut slots = Slots::default();
            let mut ids: Vec<_> = (0..6).map(|_| slots.attach()).collect();
            let mut running: Vec<SlotId> = Vec::new();
            let mut newest = std::collections::HashMap::new();
            let mut now = 0u64;
            for step in steps {
                now += 3;
                match step {
                    Step::Offer(i) => {
                        prop_assert!(slots.offer(ids[i], now, (ids[i], now)).is_ok());
                        newest.insert(ids[i], now);
                    }
                    Step::Take => {
                        let (next, jobs) = take(&mut slots, now, batching);
                        prop_assert_eq!(next == Next::Run, !jobs.is_empty());
                        prop_assert!(jobs.len() <= max);
                        if let Next::WaitUntil(due) = next {
                            prop_assert!(due > now && due <= now + timeout_ns);
                        }
                        for (id, (owner, offered)) in jobs {
                            prop_assert_eq!(id, owner);
                            prop_assert_eq!(newest.remove(&id), Some(offered));
                            prop_assert!(!running.contains(&id));
                            running.push(id);
                        }
                    }
                    Step::Done(i) => if !running.is_empty() {
                        let id = running.swap_remove(i % running.len());
                        slots.done(id);
                    },
                    Step::Withdraw(i) => {
                        let withdrawn = slots.withdraw(ids[i]).map(|(_, offered)| offered);
                        prop_assert_eq!(withdrawn, newest.remove(&ids[i]));
                    }
                    Step::Reattach(i) => {
                        let waiting = slots.detach(ids[i]).map(|(_, offered)| offered);
                        prop_assert_eq!(waiting, newest.remove(&ids[i]));
                        ids[i] = slots.attach();
                    }
                }
                prop_assert_eq!(slots.waiting(), newest.len());
                prop_assert_eq!(slots.attached(), 6);
            }
        }

        /// With everybody offering all the time, everybody is served equally.
        #[test]
        fn busy_slots_are_served_in_turn(count in 1usize..8, max in 1usize..4, rounds in 1usize..40) {
            let batching = Batching { max, timeout_ns: 0 };
            let mut slots = Slots::default();
            let ids: Vec<_> = (0..count).map(|_| slots.attach()).collect();
            let mut served = vec![0usize; count];
            for now in 0..(rounds * count) as u64 {
                for (i, &id) in ids.iter().enumerate() {
                    slots.offer(id, now, i).unwrap();
                }
                for (id, i) in take(&mut slots, now, batching).1 {
                    served[i] += 1;
                    slots.done(id);
                }
            }
            let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", served);
        }
    }
}
