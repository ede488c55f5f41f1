//! The store against a model of itself: ordinary life, crashes, damage, full and failing devices.

mod crash;
mod damage;
mod faulty;
mod life;
mod migration;
mod model;
mod recording;
mod space;
mod watched;
