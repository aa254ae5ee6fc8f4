//! Sinks and observers that several clients on the main thread share.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use dhow_xds::{Interest, Update};

use crate::{ConfigSink, Refusal, SubscriptionObserver};

impl<T: ConfigSink> ConfigSink for Rc<RefCell<T>> {
    fn apply(&mut self, type_url: &str, update: Update) -> Result<(), Vec<Refusal>> {
        self.borrow_mut().apply(type_url, update)
    }

    fn subscriptions(&self, type_url: &str) -> Interest {
        self.borrow().subscriptions(type_url)
    }

    fn take_refreshes(&mut self, type_url: &str) -> Vec<String> {
        self.borrow_mut().take_refreshes(type_url)
    }

    fn initial_fetch_timeout(&self, type_url: &str) -> Option<Duration> {
        self.borrow().initial_fetch_timeout(type_url)
    }

    fn fetch_failed(&mut self, type_url: &str, name: Option<&str>) {
        self.borrow_mut().fetch_failed(type_url, name);
    }
}

impl<T: SubscriptionObserver> SubscriptionObserver for Rc<RefCell<T>> {
    fn update_attempt(&mut self, type_url: &str, name: Option<&str>) {
        self.borrow_mut().update_attempt(type_url, name);
    }

    fn update_success(&mut self, type_url: &str, name: Option<&str>, version: &str) {
        self.borrow_mut().update_success(type_url, name, version);
    }

    fn update_failure(&mut self, type_url: &str, name: Option<&str>) {
        self.borrow_mut().update_failure(type_url, name);
    }

    fn update_rejected(&mut self, type_url: &str, name: Option<&str>, message: &str) {
        self.borrow_mut().update_rejected(type_url, name, message);
    }

    fn init_fetch_timeout(&mut self, type_url: &str, name: Option<&str>) {
        self.borrow_mut().init_fetch_timeout(type_url, name);
    }

    fn connected(&mut self, connected: bool) {
        self.borrow_mut().connected(connected);
    }

    fn control_plane(&mut self, identifier: &str) {
        self.borrow_mut().control_plane(identifier);
    }

    fn warning(&mut self, message: &str) {
        self.borrow_mut().warning(message);
    }
}
