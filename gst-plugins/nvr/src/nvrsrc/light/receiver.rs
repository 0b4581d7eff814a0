//! The thread that receives all cameras of the process. What follows never makes it wait, and no camera gets more than
//! its turn.
//!
//! Cameras that somebody watches are read when something has come, and after the beginning of a picture a moment later
//! again, so that its packets cost two looks and not one each. Of the others the system keeps what comes until it is
//! looked for, 25 times a second.

use std::{
    io::{Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    Link, Trouble,
    camera::{BUFFER, Camera},
};
use crate::nvrsrc::imp::CAT;

/// How long data of patient cameras may wait in the system's memory.
const TICK: Duration = Duration::from_millis(40);
/// What is waited after the beginning of a picture, for the rest of it.
const GATHER: Duration = Duration::from_micros(500);

enum Order {
    Add(Box<Camera>),
    Remove(Arc<Link>, mpsc::Sender<()>),
}

pub struct Receiver {
    orders: Mutex<Vec<Order>>,
    wake: UnixStream,
}

static RECEIVER: LazyLock<Option<Receiver>> = LazyLock::new(|| {
    let start = || {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let hall = Hall::<Camera>::new(woken);
        thread::Builder::new().name("nvr-receive".into()).spawn(move || hall.run())?;
        Ok::<_, std::io::Error>(Receiver { orders: Mutex::default(), wake })
    };
    start().inspect_err(|error| gst::error!(CAT, "no thread to receive with: {error}")).ok()
});

/// The thread of all cameras; `None` where the system gives none.
pub fn receiver() -> Option<&'static Receiver> {
    RECEIVER.as_ref()
}

impl Receiver {
    pub fn add(&self, camera: Camera) {
        self.order(Order::Add(Box::new(camera)));
    }

    /// Takes the camera of `link` out, if it is in; waits until that is done, but not for long.
    pub fn remove(&self, link: &Arc<Link>, patience: Duration) {
        let (done, removed) = mpsc::channel();
        self.order(Order::Remove(link.clone(), done));
        // Nothing is ever sent: the other end is dropped.
        let _ = removed.recv_timeout(patience);
    }

    fn order(&self, order: Order) {
        self.orders.lock().push(order);
        // Full means that it will wake in any case.
        let _ = (&self.wake).write(&[0]);
    }
}

/// What a turn has left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Left {
    Nothing,
    /// A picture has begun whose rest has not come.
    Rest,
    /// There may be more to take at once.
    More,
}

/// Who is received.
pub trait Guest {
    fn descriptor(&self) -> RawFd;
    /// It may be looked at now and then; nobody waits for its pictures.
    fn is_patient(&self) -> bool;
    /// Takes what has come, up to a limit, and says what is left to take. `buffer` has [`BUFFER`] bytes.
    fn turn(&mut self, buffer: &mut [u8]) -> Result<Left, Trouble>;
    /// It is received no longer.
    fn leave(self, trouble: Trouble);
}

struct Seat<G> {
    guest: G,
    /// There may be more than the last turn has taken, or something from before the first one.
    more: bool,
    /// The last poll waited for it.
    watched: bool,
}

/// What the thread has.
struct Hall<G> {
    woken: UnixStream,
    seats: Vec<Seat<G>>,
    buffer: Box<[u8]>,
    descriptors: Vec<libc::pollfd>,
    tick: Instant,
    /// Something will come in a moment: let it come.
    gather: bool,
}

impl<G: Guest> Hall<G> {
    fn new(woken: UnixStream) -> Self {
        Self {
            woken,
            seats: Vec::new(),
            buffer: vec![0; BUFFER].into(),
            descriptors: Vec::new(),
            tick: Instant::now(),
            gather: false,
        }
    }

    /// One look at everything.
    fn look(&mut self) {
        if std::mem::take(&mut self.gather) {
            thread::sleep(GATHER);
        }
        self.wait();
        if self.descriptors[0].revents != 0 {
            let mut drained = [0; 64];
            while (&self.woken).read(&mut drained).is_ok_and(|length| length == drained.len()) {}
        }
        let tick = Instant::now() >= self.tick;
        self.round(tick);
        if tick {
            self.tick = Instant::now() + TICK;
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self) {
        let one = |descriptor: RawFd| libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        self.descriptors.clear();
        self.descriptors.push(one(self.woken.as_raw_fd()));
        for seat in &mut self.seats {
            // Other threads may change their mind.
            seat.watched = !seat.guest.is_patient();
            if seat.watched {
                self.descriptors.push(one(seat.guest.descriptor()));
            }
        }
        let timeout = if self.seats.iter().any(|seat| seat.more) {
            0
        } else if self.seats.iter().any(|seat| !seat.watched) {
            let left = self.tick.saturating_duration_since(Instant::now());
            // At most 40.
            left.as_micros().div_ceil(1000) as libc::c_int
        } else {
            -1
        };
        // SAFETY: the array is as long as is said and lives through the call. Where it fails, nothing was told.
        unsafe {
            libc::poll(self.descriptors.as_mut_ptr(), self.descriptors.len() as libc::nfds_t, timeout);
        }
    }

    /// Gives each its turn of whom something has come, or may have come.
    fn round(&mut self, tick: bool) {
        let (mut at, mut watched) = (0, 1);
        while at < self.seats.len() {
            let seat = &mut self.seats[at];
            let told = if seat.watched {
                watched += 1;
                self.descriptors.get(watched - 1).is_some_and(|one| one.revents != 0)
            } else {
                tick
            };
            at += 1;
            if !told && !seat.more {
                continue;
            }
            let buffer = &mut self.buffer[..];
            let result = catch_unwind(AssertUnwindSafe(|| seat.guest.turn(buffer)))
                .unwrap_or_else(|panic| Err(Trouble::panicked(&*panic)));
            match result {
                Ok(left) => {
                    seat.more = left == Left::More;
                    // Whoever sends without end is slowed down by this as well. Nobody waits for patient ones.
                    self.gather |= left == Left::More || left == Left::Rest && seat.watched;
                }
                Err(trouble) => {
                    at -= 1;
                    self.seats.remove(at).guest.leave(trouble);
                }
            }
        }
    }
}

impl Hall<Camera> {
    fn run(mut self) {
        loop {
            self.look();
            // Now, for nobody has looked yet whether anything has come for who is added.
            self.obey();
        }
    }

    fn obey(&mut self) {
        let Some(receiver) = receiver() else { return };
        for order in std::mem::take(&mut *receiver.orders.lock()) {
            match order {
                Order::Add(camera) => self.seats.push(Seat { guest: *camera, more: true, watched: false }),
                Order::Remove(link, done) => {
                    self.seats.retain(|seat| !seat.guest.is_of(&link));
                    drop(done);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    /// What a guest does at its next turns.
    #[derive(Clone, Copy, Debug)]
    enum Mood {
        Quiet,
        Begins,
        Greedy,
        Panics,
        Ends,
    }

    struct Actor {
        name: &'static str,
        socket: UnixStream,
        patient: bool,
        mood: Mood,
        log: Arc<Mutex<Vec<String>>>,
    }

    impl Guest for Actor {
        fn descriptor(&self) -> RawFd {
            self.socket.as_raw_fd()
        }

        fn is_patient(&self) -> bool {
            self.patient
        }

        fn turn(&mut self, buffer: &mut [u8]) -> Result<Left, Trouble> {
            let length = self.socket.read(buffer).unwrap_or(0);
            self.log.lock().push(format!("{} {length}", self.name));
            match self.mood {
                Mood::Quiet => Ok(Left::Nothing),
                Mood::Begins => Ok(Left::Rest),
                Mood::Greedy => Ok(Left::More),
                Mood::Panics => panic!("out of order"),
                Mood::Ends => Err(Trouble::Over),
            }
        }

        fn leave(self, trouble: Trouble) {
            self.log.lock().push(format!("{} left: {trouble:?}", self.name));
        }
    }

    struct Scene {
        hall: Hall<Actor>,
        peers: Vec<UnixStream>,
        log: Arc<Mutex<Vec<String>>>,
        _wake: UnixStream,
    }

    impl Scene {
        fn new(actors: &[(&'static str, bool, Mood)]) -> Self {
            let (wake, woken) = UnixStream::pair().unwrap();
            let mut scene =
                Self { hall: Hall::new(woken), peers: Vec::new(), log: Arc::default(), _wake: wake };
            for (name, patient, mood) in actors {
                let (socket, peer) = UnixStream::pair().unwrap();
                socket.set_nonblocking(true).unwrap();
                let guest = Actor { name, socket, patient: *patient, mood: *mood, log: scene.log.clone() };
                scene.hall.seats.push(Seat { guest, more: false, watched: false });
                scene.peers.push(peer);
            }
            scene
        }

        fn look(&mut self) -> Vec<String> {
            self.hall.look();
            std::mem::take(&mut *self.log.lock())
        }
    }

    #[test]
    fn a_fault_with_one_camera_is_the_end_of_that_one_alone() {
        let mut scene = Scene::new(&[
            ("a", false, Mood::Quiet),
            ("b", false, Mood::Panics),
            ("c", false, Mood::Ends),
            ("d", false, Mood::Quiet),
        ]);
        for peer in &mut scene.peers {
            peer.write_all(b"12345").unwrap();
        }
        let log = scene.look();
        assert_eq!(
            (&log[0], &log[1], &log[3], &log[4]),
            (&"a 5".into(), &"b 5".into(), &"c 5".into(), &"c left: Over".into())
        );
        assert!(log[2].contains("b left: Fault") && log[2].contains("out of order"), "{log:?}");
        assert_eq!(log[5..], ["d 5"]);
        scene.peers[3].write_all(b"1").unwrap();
        assert_eq!(scene.look(), ["d 1"]);
    }

    #[test]
    fn a_flood_takes_turns_with_the_others() {
        let mut scene = Scene::new(&[("flood", false, Mood::Greedy), ("other", false, Mood::Quiet)]);
        scene.peers[0].write_all(b"1").unwrap();
        for _ in 0..3 {
            scene.peers[1].write_all(b"22").unwrap();
            let log = scene.look();
            assert!(log.len() == 2 && log[0].starts_with("flood") && log[1] == "other 2", "{log:?}");
        }
    }

    #[test]
    fn the_rest_of_a_picture_is_let_come_and_a_whole_one_is_not_kept_waiting() {
        for (patient, mood, gathers) in [
            (false, Mood::Quiet, false),
            (false, Mood::Begins, true),
            (false, Mood::Greedy, true),
            (true, Mood::Begins, false),
        ] {
            let mut scene = Scene::new(&[("one", patient, mood)]);
            scene.peers[0].write_all(b"1").unwrap();
            assert_eq!(scene.look(), ["one 1"]);
            assert_eq!(scene.hall.gather, gathers, "{patient} {mood:?}");
        }
    }

    #[test]
    fn patient_cameras_are_looked_at_by_the_clock_and_others_when_something_comes() {
        let mut scene = Scene::new(&[("record", true, Mood::Quiet), ("watch", false, Mood::Quiet)]);
        scene.hall.tick = Instant::now() + Duration::from_mins(1);
        scene.peers[0].write_all(b"1").unwrap();
        scene.peers[1].write_all(b"22").unwrap();
        assert_eq!(scene.look(), ["watch 2"]);
        scene.hall.tick = Instant::now();
        assert_eq!(scene.look(), ["record 1"]);
        assert!(scene.hall.tick > Instant::now());
    }
}
