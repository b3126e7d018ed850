// What the manual uses of the crate fork, so that its samples compile without it.

pub enum Fork {
    Parent(i32),
    Child,
}

pub fn daemon(_: bool, _: bool) -> Result<Fork, std::io::Error> {
    Ok(Fork::Child)
}
