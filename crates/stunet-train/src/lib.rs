//! Training of STU-Net: from cases to weights.
//!
//! A tour, in reading order:
//!
//! * [`fit()`]: the loop; [`FitConfig`] is its recipe, [`FitCases`] its data, [`TrainingState`] all
//!   that changes, [`FoldFolder`] where it writes, [`FitEvent`] what it tells,
//! * [`objective`], [`loss`], [`schedule`], [`optimiser`], [`precision`], [`recompute`]: what one update
//!   is made of; loss, schedule and optimiser can be replaced by one's own,
//! * [`distributed`]: that update on several devices at once, [`memory`]: what it will hold,
//! * [`transfer`]: pre-trained weights, and a report of what was carried over; [`parts`], [`rates`],
//!   [`LowRankOptions`]: what of them is trained, and how fast,
//! * [`checkpoint`]: a run on disk, [`export`]: its weights for others,
//! * [`nnunet_cases`], [`nnunet_run`]: cases that nnU-Net preprocessed, a run that it began,
//! * [`pseudo_dice`], [`log`], [`progress_png`]: how it is going.
//!
//! Batches come from [`stunet_data::loader`]; every one is a function of the seed and its number,
//! so that a run which is cut off and continued computes what the uninterrupted one does.
//!
//! ```
//! use burn::tensor::Device;
//! use ndarray::{Array3, Array4};
//! use std::ops::ControlFlow;
//! use std::sync::Arc;
//! use stunet_data::augment::Augmentation;
//! use stunet_data::loader::LoaderConfig;
//! use stunet_data::sample::MemoryCase;
//! use stunet_model::{Initialisation, StuNetConfig};
//! use stunet_train::loss::{Loss, LossConfig};
//! use stunet_train::{FitEvent, FitCases, FitConfig, StateOptions, TrainingState, fit};
//!
//! let labels = Array3::from_shape_fn([16, 16, 64], |(_, y, _)| i16::from(y > 7));
//! let image = Array4::from_shape_fn([1, 16, 16, 64], |(_, _, y, x)| (y * 7 + x) as f32 / 100.0);
//! let cases = Arc::new(vec![MemoryCase::new("ramp", image, labels)?]);
//! let cases = FitCases { training: cases.clone(), validation: Some(cases) };
//!
//! let network = StuNetConfig { width: [2, 2, 2, 2, 2, 2], ..StuNetConfig::small(1, 2) };
//! let options = StateOptions::new(&Device::flex());
//! let device = options.training_device();
//! let initial = network.init_seeded(Initialisation::NnUNetV1, 0, &device)?;
//! let loader = LoaderConfig::new(Augmentation::v1([16, 16, 64]), 2, &network.strides);
//! let loss = Loss::new(LossConfig::v1(true))?;
//! let config = FitConfig { num_iterations: 2, ..FitConfig::new(1, loader, loss) };
//!
//! let state = fit(TrainingState::new(initial, &options), &cases, &config, None, &mut |event| {
//!     if let FitEvent::Step(step) = event {
//!         assert!(step.loss.is_finite());
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! assert!(state.is_complete(&config));
//! # Ok::<(), stunet_train::TrainError>(())
//! ```
//!
//! Training and inference never know each other: they meet on disk, in a model folder.
#![warn(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

mod batch;
pub mod checkpoint;
pub mod distributed;
mod error;
pub mod events;
pub mod exact;
pub mod export;
mod fit;
mod history;
mod host;
mod identity;
pub mod log;
pub mod loss;
pub mod memory;
pub mod nnunet_cases;
pub mod nnunet_run;
pub mod objective;
pub mod optimiser;
pub mod parts;
pub mod precision;
pub mod progress_png;
pub mod pseudo_dice;
pub mod rates;
pub mod recompute;
pub mod schedule;
mod step;
pub mod tensorboard;
mod trained;
pub mod transfer;

pub use batch::DeviceBatch;
pub use burn_optim;
pub use error::{Result, TrainError};
pub use events::{FitEvent, TrainingStep};
pub use fit::{FitCases, FitConfig, FoldFolder, StateOptions, TrainingState, fit};
pub use history::{EpochRecord, Progress, Running};
pub use identity::Identity;
pub use stunet_model::LowRankConfig;
pub use trained::LowRankOptions;
