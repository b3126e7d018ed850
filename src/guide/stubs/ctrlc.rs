// What the manual uses of the crate ctrlc, so that its samples compile without it. Ctrl-C is pressed at once.

pub fn set_handler(handler: impl FnMut() + Send + 'static) -> Result<(), std::io::Error> {
    std::thread::spawn(handler);
    Ok(())
}
