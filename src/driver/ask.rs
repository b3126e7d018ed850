//! Blocking questions, such as looking up the addresses of a name: each is asked on a thread of its own, even
//! if others hang. Must not know what is asked.

use std::io;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

/// Asks questions, never the same one twice at a time, on threads that exist while one is open.
///
/// A call that hangs cannot be ended. Asking the same question again means waiting for that call's answer;
/// asking another one waits only if the maximum number of threads hang.
#[derive(Debug)]
pub(super) struct Asker<Q> {
    most_threads: usize,
    state: Arc<Mutex<State<Q>>>,
}

#[derive(Debug)]
struct State<Q> {
    /// The last question, with the number of the attempt that it is asked for.
    open: Option<(Q, u64)>,
    /// The questions that the threads are working on.
    asked: Vec<Q>,
}

impl<Q: Clone + PartialEq + Send + 'static> Asker<Q> {
    pub(super) fn new(most_threads: usize) -> Self {
        let state = State {
            open: None,
            asked: Vec::new(),
        };
        Self {
            most_threads,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Asks a question, replacing any earlier one. `give` is called with the answer and with the number of
    /// the attempt that asked last.
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
        state.open = Some((question.clone(), attempt));
        if state.asked.contains(&question) || state.asked.len() >= self.most_threads {
            return Ok(());
        }
        let shared = Arc::clone(&self.state);
        let first = question.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let mut asked = Some(first);
                while let Some(question) = asked {
                    let gone = Gone(&shared, &question);
                    let answer = answer(&question);
                    let attempt = shared.lock().close(&question);
                    if let Some(attempt) = attempt {
                        give(attempt, answer);
                    }
                    drop(gone);
                    asked = shared.lock().next();
                }
            })
            .inspect_err(|_| state.open = None)?;
        state.asked.push(question);
        Ok(())
    }
}

impl<Q: Clone + PartialEq> State<Q> {
    /// A question was answered. Returns the attempt that waits for it.
    fn close(&mut self, question: &Q) -> Option<u64> {
        let (_, attempt) = self.open.take_if(|(open, _)| open == question)?;
        Some(attempt)
    }

    /// The open question, if no thread is working on it.
    fn next(&mut self) -> Option<Q> {
        let (open, _) = self.open.as_ref()?;
        if self.asked.contains(open) {
            return None;
        }
        let question = open.clone();
        self.asked.push(question.clone());
        Some(question)
    }
}

/// A thread is no longer working on this question. If that is because of a panic, this is the only sign of
/// it.
struct Gone<'a, Q: PartialEq>(&'a Mutex<State<Q>>, &'a Q);

impl<Q: PartialEq> Drop for Gone<'_, Q> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.asked.retain(|asked| asked != self.1);
        if thread::panicking() {
            state.open.take_if(|(open, _)| open == self.1);
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
        /// Gives what a thread has been asked, and takes the answer.
        asked: (Sender<&'static str>, Receiver<&'static str>),
        answers: Mutex<(Sender<u32>, Receiver<u32>)>,
        given: (Sender<Given>, Receiver<Given>),
    }

    impl Desk {
        fn new(most_threads: usize) -> Self {
            Self {
                asker: Asker::new(most_threads),
                asked: unbounded(),
                answers: Mutex::new(unbounded()),
                given: unbounded(),
            }
        }

        fn ask(&self, question: &'static str, attempt: u64) {
            let (asked, answers, given) = (
                self.asked.0.clone(),
                self.answers.lock().1.clone(),
                self.given.0.clone(),
            );
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
            self.answers.lock().0.send(answer).unwrap();
        }

        fn given(&self) -> (u64, u32) {
            self.given.1.recv_timeout(LONG).unwrap()
        }
    }

    #[test]
    fn the_last_attempt_gets_the_answer_to_the_question_of_the_first() {
        let desk = Desk::new(2);
        (1..=5).for_each(|attempt| desk.ask("a", attempt));
        assert_eq!(desk.asked(), "a");
        desk.answer(7);
        assert_eq!(desk.given(), (5, 7));
        // The next question is asked anew.
        desk.ask("a", 6);
        assert_eq!(desk.asked(), "a");
        desk.answer(8);
        assert_eq!(desk.given(), (6, 8));
        assert!(desk.asked.1.is_empty() && desk.given.1.is_empty());
    }

    #[test]
    fn a_question_that_hangs_holds_up_no_other() {
        let desk = Desk::new(usize::MAX);
        desk.ask("a", 1);
        assert_eq!(desk.asked(), "a");
        let first = std::mem::replace(&mut *desk.answers.lock(), unbounded());
        desk.ask("b", 2);
        assert_eq!(desk.asked(), "b");
        desk.answer(2);
        assert_eq!(desk.given(), (2, 2));
        // It has answered after all, and is asked once more.
        desk.ask("a", 3);
        first.0.send(1).unwrap();
        assert_eq!(desk.given(), (3, 1));
        assert!(desk.asked.1.is_empty() && desk.given.1.is_empty());
    }

    #[test]
    fn another_question_waits_for_the_last_thread_that_there_may_be() {
        let desk = Desk::new(1);
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
        let asker = Asker::new(1);
        let (sender, receiver) = unbounded();
        let panics = |_: &u32| -> u32 { panic!("on purpose") };
        asker.ask("livequery-test", 1, 1, panics, |_, _| ()).unwrap();
        while !asker.state.lock().asked.is_empty() {
            thread::yield_now();
        }
        let give = move |attempt, answer: u32| sender.send((attempt, answer)).unwrap();
        asker
            .ask("livequery-test", 2, 2, |question: &u32| *question, give)
            .unwrap();
        assert_eq!(receiver.recv_timeout(LONG), Ok((2, 2)));
    }
}
