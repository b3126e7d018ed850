// What the manual uses of the crate gtk4, so that its samples compile without it.

pub mod glib {
    pub fn spawn_future_local<F: Future + 'static>(_: F) {}
}
