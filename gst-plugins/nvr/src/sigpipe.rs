//! Who writes to what nobody reads any more is ended by `SIGPIPE`, in programs that do not ignore it, as gst-launch-1.0
//! does not. A plugin must not decide that for a whole process, but may for threads of its own.

/// Lets writes of this thread fail with an error instead. For threads that end with what they are for; programs that
/// they start get the signal as usual.
pub fn block() {
    // SAFETY: the set is made by `sigemptyset` before it is read, and only this thread's mask changes.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::{IoSlice, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    /// Whether this is the process of its own that the test `name` runs in, whose `SIGPIPE` is as gst-launch-1.0 has it
    /// and Rust's programs have not. Where it is not, that process was started and has ended well.
    pub fn is_own_process(name: &str) -> bool {
        const CHILD: &str = "NVR_TEST_SIGPIPE";
        if std::env::var_os(CHILD).is_none() {
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name])
                .env(CHILD, "1")
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(status.success(), "{status}");
            return false;
        }
        // SAFETY: no other thread of this process depends on it.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        }
        true
    }

    #[test]
    fn a_peer_that_goes_away_does_not_end_the_process() {
        if !is_own_process("sigpipe::tests::a_peer_that_goes_away_does_not_end_the_process") {
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        drop(listener.accept().unwrap());
        let writer = std::thread::spawn(move || {
            super::block();
            // As TLS and MQTT do it; the first ones may go before it is known that nobody is there.
            while stream.write_vectored(&[IoSlice::new(b"a"), IoSlice::new(b"b")]).is_ok() {
                std::thread::yield_now();
            }
        });
        writer.join().unwrap();
    }
}
