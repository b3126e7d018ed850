// What the manual uses of the crate winit, so that its samples compile without it.

pub mod event_loop {
    #[derive(Clone)]
    pub struct EventLoopProxy<T: 'static>(pub std::sync::mpsc::Sender<T>);

    impl<T> EventLoopProxy<T> {
        pub fn send_event(&self, event: T) -> Result<(), ()> {
            self.0.send(event).map_err(|_| ())
        }
    }
}
