//! What the C library's allocator is told.

/// glibc gives threads heaps of their own, up to eight a core, and what one of them has freed is no use to another: sled's
/// and tokio's threads, which do little, held three quarters of a megabyte in them. Two are enough for what is left to
/// contend for. To be called before there is a second thread.
pub fn set_up() {
    #[cfg(target_env = "gnu")]
    set(libc::M_ARENA_MAX, 2);
}

/// For an agent without cameras: what is freed goes back to the system soon. glibc would keep more and more of it, since it
/// learns from every large block that such blocks are common: 0.3 MB more after a minute. Frames are just that, and would
/// be taken from the system each time. To be called before there is a second thread.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    {
        set(libc::M_MMAP_THRESHOLD, 64 << 10);
        set(libc::M_TRIM_THRESHOLD, 64 << 10);
    }
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "there is no other way to tell glibc")]
fn set(parameter: libc::c_int, value: libc::c_int) {
    // SAFETY: it sets a number inside the allocator.
    unsafe {
        libc::mallopt(parameter, value);
    }
}
