//! The connections of one companion, as the rest of the core sees them: to be woken and to be closed. Lives on the companion's core.
//!
//! The tasks that make and serve them are in `link_task`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::socket::SocketIo;
use crate::contract::LinkKey;

/// One connection, which is made again whenever it ends, until it is closed.
#[derive(Debug, Default)]
pub struct Link {
    io: RefCell<Option<Rc<SocketIo>>>,
    closed: Cell<bool>,
}

impl Link {
    /// The socket in use; `None` between two connections.
    pub fn set_io(&self, io: Option<Rc<SocketIo>>) {
        *self.io.borrow_mut() = io;
    }

    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Wakes the writer task.
    pub fn ring(&self) {
        if let Some(io) = &*self.io.borrow() {
            io.writable.ring();
        }
    }

    pub fn close(&self) {
        self.closed.set(true);
        if let Some(io) = &*self.io.borrow() {
            io.close();
        }
    }
}

/// All connections of a companion; two at most times.
#[derive(Debug, Default)]
pub struct Links {
    all: Vec<(LinkKey, Rc<Link>)>,
}

impl Links {
    /// A new one, not connected yet.
    pub fn open(&mut self, key: LinkKey) -> Rc<Link> {
        let link = Rc::new(Link::default());
        self.all.push((key, Rc::clone(&link)));
        link
    }

    pub fn close(&mut self, key: LinkKey) {
        if let Some(at) = self.all.iter().position(|(own, _)| *own == key) {
            self.all.swap_remove(at).1.close();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &(LinkKey, Rc<Link>)> {
        self.all.iter()
    }
}
