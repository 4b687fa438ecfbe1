//! A wake-up between two tasks of one core. Remembers one ring, so that none is lost.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Lives on one core; one task waits at a time.
#[derive(Debug, Default)]
pub struct Notify {
    rung: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Notify {
    pub fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waiter.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Ends at once if it was rung since the last wait.
    pub fn wait(&self) -> Wait<'_> {
        Wait { notify: self }
    }
}

/// Future of [`Notify::wait`].
pub struct Wait<'a> {
    notify: &'a Notify,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.notify.rung.replace(false) {
            return Poll::Ready(());
        }
        *self.notify.waiter.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}
