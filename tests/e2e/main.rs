//! Whole peers as people run them: the real binary, real processes on loopback, real kills. One file a
//! concern; what they share is in the library of this package.

mod apart;
mod bulk;
mod catch_up;
mod crash;
mod damage;
mod demo;
mod directory;
mod full;
mod kills;
mod layouts;
mod meeting;
mod memory;
mod outsiders;
mod removed;
mod restored;
mod tickets;
mod walk;
