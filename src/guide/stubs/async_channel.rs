// What the manual uses of the crate async-channel, so that its samples compile without it.

use std::sync::mpsc;

pub struct Sender<T>(mpsc::SyncSender<T>);

impl<T> Sender<T> {
    pub fn try_send(&self, value: T) -> Result<(), mpsc::TrySendError<T>> {
        self.0.try_send(value)
    }
}

pub struct Receiver<T>(mpsc::Receiver<T>);

impl<T> Receiver<T> {
    pub async fn recv(&self) -> Result<T, mpsc::RecvError> {
        self.0.recv()
    }
}

pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::sync_channel(capacity);
    (Sender(sender), Receiver(receiver))
}
