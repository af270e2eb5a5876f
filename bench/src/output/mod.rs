//! A result in the formats that people and programs read.

pub mod bar;
pub mod compare;
pub mod docs;
pub mod export;
pub mod gate;
pub mod history;
pub mod html;
pub mod list;
pub mod notes;
pub mod profile;
pub mod table;
pub mod text;
mod where_slower;
pub mod words;
