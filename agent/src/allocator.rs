//! What the C library's allocator is told.

/// glibc gives threads heaps of their own, up to eight a core, and what one of them has freed is no use to another: sled's
/// and tokio's threads, which do little, held three quarters of a megabyte in them. Two are enough for what is left to
/// contend for. To be called before there is a second thread.
pub fn set_up() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code, reason = "there is no other way to tell glibc")]
    // SAFETY: it sets a number inside the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
