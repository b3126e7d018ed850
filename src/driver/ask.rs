//! Questions that block, as those for the addresses of a name: one thread answers them, whatever hangs. It knows nothing
//! of what is asked.

use std::io;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

/// Asks one question at a time, on a thread that is there while one is open.
///
/// A call that hangs cannot be ended. Who asks the same again waits for its answer then; who asks something else waits
/// until that thread is free.
#[derive(Debug)]
pub(super) struct Asker<Q> {
    state: Arc<Mutex<State<Q>>>,
}

#[derive(Debug)]
struct State<Q> {
    /// The last question, with the number of the attempt that it is asked for.
    open: Option<(Q, u64)>,
    has_thread: bool,
}

impl<Q> Default for Asker<Q> {
    fn default() -> Self {
        let state = State {
            open: None,
            has_thread: false,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }
}

impl<Q: Clone + PartialEq + Send + 'static> Asker<Q> {
    /// Asks this in place of any former question. `give` is called with the answer and with the number of the attempt
    /// that asked last.
    ///
    /// # Errors
    /// If a thread is needed and cannot be started; nothing is asked then.
    pub(super) fn ask<A: 'static>(
        &self,
        name: &str,
        question: Q,
        attempt: u64,
        answer: impl Fn(&Q) -> A + Send + 'static,
        give: impl Fn(u64, A) + Send + 'static,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        state.open = Some((question, attempt));
        if state.has_thread {
            return Ok(());
        }
        let shared = Arc::clone(&self.state);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _gone = Gone(&shared);
                while let Some(question) = next(&shared) {
                    let answer = answer(&question);
                    let attempt = {
                        let mut state = shared.lock();
                        match &state.open {
                            Some((open, attempt)) if *open == question => {
                                let attempt = *attempt;
                                state.open = None;
                                attempt
                            }
                            _ => continue,
                        }
                    };
                    give(attempt, answer);
                }
            })
            .inspect_err(|_| state.open = None)?;
        state.has_thread = true;
        Ok(())
    }
}

/// The question that is open. With none there is no thread any more.
fn next<Q: Clone>(shared: &Mutex<State<Q>>) -> Option<Q> {
    let mut state = shared.lock();
    let question = state.open.as_ref().map(|(question, _)| question.clone());
    state.has_thread = question.is_some();
    question
}

/// Says so if the thread ends by a panic, of which nothing else is known.
struct Gone<'a, Q>(&'a Mutex<State<Q>>);

impl<Q> Drop for Gone<'_, Q> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut state = self.0.lock();
            state.has_thread = false;
            state.open = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, Sender, unbounded};
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);

    /// The attempt, and the answer.
    type Given = (u64, u32);

    struct Desk {
        asker: Asker<&'static str>,
        /// What a thread has been asked, and what it is to answer.
        asked: (Sender<&'static str>, Receiver<&'static str>),
        answers: (Sender<u32>, Receiver<u32>),
        given: (Sender<Given>, Receiver<Given>),
    }

    impl Desk {
        fn new() -> Self {
            Self {
                asker: Asker::default(),
                asked: unbounded(),
                answers: unbounded(),
                given: unbounded(),
            }
        }

        fn ask(&self, question: &'static str, attempt: u64) {
            let (asked, answers, given) =
                (self.asked.0.clone(), self.answers.1.clone(), self.given.0.clone());
            let answer = move |question: &&'static str| {
                asked.send(*question).unwrap();
                answers.recv_timeout(LONG).unwrap()
            };
            let give = move |attempt, answer| given.send((attempt, answer)).unwrap();
            self.asker
                .ask("livequery-test", question, attempt, answer, give)
                .unwrap();
        }

        fn asked(&self) -> &'static str {
            self.asked.1.recv_timeout(LONG).unwrap()
        }

        fn answer(&self, answer: u32) {
            self.answers.0.send(answer).unwrap();
        }

        fn given(&self) -> (u64, u32) {
            self.given.1.recv_timeout(LONG).unwrap()
        }
    }

    #[test]
    fn the_last_attempt_gets_the_answer_to_the_question_of_the_first() {
        let desk = Desk::new();
        (1..=5).for_each(|attempt| desk.ask("a", attempt));
        assert_eq!(desk.asked(), "a");
        desk.answer(7);
        assert_eq!(desk.given(), (5, 7));
        // And the next question is asked anew.
        desk.ask("a", 6);
        assert_eq!(desk.asked(), "a");
        desk.answer(8);
        assert_eq!(desk.given(), (6, 8));
        assert!(desk.asked.1.is_empty() && desk.given.1.is_empty());
    }

    #[test]
    fn another_question_waits_for_the_thread() {
        let desk = Desk::new();
        desk.ask("a", 1);
        assert_eq!(desk.asked(), "a");
        desk.ask("b", 2);
        desk.ask("c", 3);
        desk.answer(1);
        assert_eq!(desk.asked(), "c");
        desk.answer(3);
        assert_eq!(desk.given(), (3, 3));
        assert!(desk.asked.1.is_empty() && desk.given.1.is_empty());
    }

    #[test]
    fn a_panic_is_not_the_end_of_it() {
        let asker = Asker::default();
        let (sender, receiver) = unbounded();
        let panics = |_: &u32| -> u32 { panic!("on purpose") };
        asker.ask("livequery-test", 1, 1, panics, |_, _| ()).unwrap();
        while asker.state.lock().has_thread {
            thread::yield_now();
        }
        let give = move |attempt, answer: u32| sender.send((attempt, answer)).unwrap();
        asker
            .ask("livequery-test", 2, 2, |question: &u32| *question, give)
            .unwrap();
        assert_eq!(receiver.recv_timeout(LONG), Ok((2, 2)));
    }
}
