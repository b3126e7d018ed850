// What the manual uses of the crate slint, so that its samples compile without it.

pub fn invoke_from_event_loop(_: impl FnOnce() + Send + 'static) -> Result<(), std::io::Error> {
    Ok(())
}
