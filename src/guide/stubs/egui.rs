// What the manual uses of the crate egui, so that its samples compile without it.

#[derive(Clone)]
pub struct Context;

impl Context {
    pub fn request_repaint(&self) {}
}
