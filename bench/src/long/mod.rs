//! Many long model calls at once: what recording every token id of them costs, and whether the record is right.

mod answer;
mod check;
mod endpoint;
mod load;
mod npy;
mod plan;
mod processes;
mod run;
mod spans;
mod table;

pub use endpoint::respond;
pub use plan::Order;
pub use run::{LongArgs, run};
