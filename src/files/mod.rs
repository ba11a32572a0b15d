//! Files and folders that only their owner may change: creation, and checks of those that exist; and the room on their disks.
//!
//! The modes do not depend on the umask, which a service or a container may have left at 0.

mod check;
mod create;
mod free_space;
mod partial;
mod secret;

pub(crate) use check::{Owner, UnsafeFile, check_unchangeable};
pub(crate) use create::{allow_reading, create_private_file, create_private_folder, private_folder_in, write_private};
pub(crate) use free_space::{device, free_bytes, sqlite_temporary_folder};
pub(crate) use partial::PartialFile;
pub(crate) use secret::{SecretFileError, check_secret, secret_of};
