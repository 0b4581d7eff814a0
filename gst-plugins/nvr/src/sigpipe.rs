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
