//! What filters keep for as long as a connection lasts.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Objects of filters on a connection, one of each type. Takes no memory beyond a pointer until something is kept.
#[derive(Default)]
pub struct ConnectionObjects(RefCell<Option<Box<Objects>>>);

type Objects = Vec<Rc<dyn Any>>;

impl ConnectionObjects {
    /// The object of a type, when there is one.
    pub fn get<T: 'static>(&self) -> Option<Rc<T>> {
        let objects = self.0.borrow();
        objects.as_ref()?.iter().find_map(|object| object.clone().downcast().ok())
    }

    /// The object of a type; made when there is none yet.
    pub fn get_or_insert_with<T: 'static>(&self, make: impl FnOnce() -> T) -> Rc<T> {
        let mut objects = self.0.borrow_mut();
        let objects = objects.get_or_insert_default();
        let known = objects.iter().find_map(|object| object.clone().downcast().ok());
        known.unwrap_or_else(|| {
            let made = Rc::new(make());
            objects.push(made.clone());
            made
        })
    }
}

impl fmt::Debug for ConnectionObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.borrow().as_ref().map_or(0, |objects| objects.len());
        f.debug_tuple("ConnectionObjects").field(&count).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_object_of_each_type() {
        let objects = ConnectionObjects::default();
        assert_eq!(objects.get::<u8>(), None);
        assert_eq!(*objects.get_or_insert_with(|| 1_u8), 1);
        assert_eq!(objects.get::<u8>().as_deref(), Some(&1));
        assert_eq!(*objects.get_or_insert_with(|| "text"), "text");
        assert_eq!(*objects.get_or_insert_with(|| 2_u8), 1);
    }
}
