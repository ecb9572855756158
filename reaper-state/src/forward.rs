//! Pointers to stores are stores.

use std::sync::Arc;

use reaper_spec::ContainerId;

use crate::{Error, Record, Revision, StateStore, VersionedRecord};

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<T: StateStore + ?Sized> StateStore for $pointer {
            fn create(&self, record: &Record) -> Result<Revision, Error> {
                (**self).create(record)
            }

            fn get(&self, id: &ContainerId) -> Result<VersionedRecord, Error> {
                (**self).get(id)
            }

            fn update(&self, expected: &Revision, record: &Record) -> Result<Revision, Error> {
                (**self).update(expected, record)
            }

            fn delete(&self, id: &ContainerId) -> Result<(), Error> {
                (**self).delete(id)
            }

            fn list(&self) -> Result<Vec<ContainerId>, Error> {
                (**self).list()
            }
        }
    )*};
}

forward!(&T, Box<T>, Arc<T>);
