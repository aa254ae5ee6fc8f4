//! What lives on one worker thread.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use dhow_base::Rng;

use crate::buffer::BufferPool;

/// State of one worker thread, or of the main thread where that serves connections too, shared by everything that runs on it.
#[derive(Debug)]
pub struct Worker {
    /// None on the main thread.
    index: Option<usize>,
    rng: RefCell<Rng>,
    buffers: Rc<BufferPool>,
    extensions: RefCell<HashMap<TypeId, Rc<dyn Any>>>,
}

impl Worker {
    /// The state of worker number `index` (from 0), with its own random numbers.
    pub fn new(index: usize, rng: Rng) -> Rc<Self> {
        Self::with_index(Some(index), rng)
    }

    /// The state of the main thread, which serves the admin interface.
    pub fn main(rng: Rng) -> Rc<Self> {
        Self::with_index(None, rng)
    }

    fn with_index(index: Option<usize>, rng: Rng) -> Rc<Self> {
        Rc::new(Self {
            index,
            rng: RefCell::new(rng),
            buffers: Rc::default(),
            extensions: RefCell::default(),
        })
    }

    /// Name of this thread in those of statistics: `worker_<n>`, from 0, or `main_thread`.
    pub fn stat_name(&self) -> String {
        self.index.map_or_else(|| "main_thread".to_owned(), |index| format!("worker_{index}"))
    }

    /// The next random number.
    pub fn random(&self) -> u64 {
        self.rng.borrow_mut().next_u64()
    }

    /// The buffers of this worker.
    pub fn buffers(&self) -> &Rc<BufferPool> {
        &self.buffers
    }

    /// State of type `T` that a higher layer keeps per worker (cluster snapshots, connection pools), made by `make` when
    /// first asked for. Meant for set-up: keep the result instead of asking per request.
    pub fn extension<T: 'static>(self: &Rc<Self>, make: impl FnOnce(&Rc<Self>) -> Rc<T>) -> Rc<T> {
        let key = TypeId::of::<T>();
        let present = self.extensions.borrow().get(&key).cloned();
        let any = present.unwrap_or_else(|| {
            let made: Rc<dyn Any> = make(self);
            self.extensions.borrow_mut().insert(key, made.clone());
            made
        });
        any.downcast().expect("the map is keyed by the type of its values")
    }

    /// State that the start of the worker has put there.
    ///
    /// # Panics
    /// When it was not: the server gives every worker its clusters before anything else.
    pub fn existing_extension<T: 'static>(self: &Rc<Self>) -> Rc<T> {
        self.extension(|_| panic!("{} was not set up on this worker", std::any::type_name::<T>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_the_names_that_statistics_give_them() {
        assert_eq!(Worker::new(3, Rng::seeded(1)).stat_name(), "worker_3");
        assert_eq!(Worker::main(Rng::seeded(1)).stat_name(), "main_thread");
    }

    #[test]
    fn an_extension_is_made_once_per_worker() {
        let worker = Worker::new(0, Rng::seeded(1));
        let first = worker.extension(|_| Rc::new(RefCell::new(1)));
        *first.borrow_mut() += 1;
        let again = worker.extension(|_| Rc::new(RefCell::new(1)));
        assert_eq!(*again.borrow(), 2);
    }
}
