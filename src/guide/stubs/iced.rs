// What the manual uses of the crate iced, so that its samples compile without it.

use std::marker::PhantomData;

pub struct Task<T>(PhantomData<T>);

impl<T> Task<T> {
    pub fn run<A>(_: futures::channel::mpsc::UnboundedReceiver<A>, _: impl Fn(A) -> T + Send + 'static) -> Self {
        Self(PhantomData)
    }
}

pub mod futures {
    pub mod channel {
        pub mod mpsc {
            pub struct UnboundedSender<T>(std::sync::mpsc::Sender<T>);

            impl<T> UnboundedSender<T> {
                pub fn unbounded_send(&self, value: T) -> Result<(), std::sync::mpsc::SendError<T>> {
                    self.0.send(value)
                }
            }

            pub struct UnboundedReceiver<T>(pub std::sync::mpsc::Receiver<T>);

            pub fn unbounded<T>() -> (UnboundedSender<T>, UnboundedReceiver<T>) {
                let (sender, receiver) = std::sync::mpsc::channel();
                (UnboundedSender(sender), UnboundedReceiver(receiver))
            }
        }
    }
}
