//! One case of the store benchmark a process, so that peak memory belongs to that case.
//! Prints one line `case figure=value …`; README.md has the command for all of them.

mod cases;
mod crash;
mod data;
mod engine;
mod store;

use std::path::PathBuf;

use crate::engine::Res;

/// What a case is run on.
pub struct Setup {
    pub engine: String,
    pub arrangement: String,
    pub dir: PathBuf,
    /// How many: slots loaded, overwrites made.
    pub n: u64,
}

impl Setup {
    fn open(&self) -> Res<store::Store> {
        store::Store::open(&self.engine, &self.arrangement, &self.dir)
    }
}

fn main() -> Res<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [engine, arrangement, case, dir, n] = args.as_slice() else {
        return Err("usage: store-bench redb|fjall A|B|C CASE DIR N".into());
    };
    let (engine, arrangement) = (engine.clone(), arrangement.clone());
    let setup = Setup {
        engine,
        arrangement,
        dir: PathBuf::from(dir),
        n: n.parse()?,
    };
    match case.as_str() {
        "load" => cases::load(&setup),
        "fresh" => cases::fresh(&setup),
        "overwrite" => cases::overwrite(&setup),
        "stream" => cases::stream(&setup),
        "get" => cases::get(&setup),
        "scan" => cases::scan(&setup),
        "reopen" => cases::reopen(&setup),
        "beside" => cases::beside(&setup),
        "flush" => setup.open()?.engine.flush(),
        "fdatasync" => cases::fdatasync(&setup),
        "kill" => crash::kill(&setup),
        "kill-child" => crash::child(&setup),
        "fill" => crash::fill(&setup),
        other => Err(format!("no case {other}").into()),
    }
}
