//! MQTT connections, shared per process and broker.
//!
//! An element keeps a [`BrokerSettings`] among its settings, resolves it when it starts and opens a [`Publisher`]:
//! a bounded queue of its own in front of a connection that it shares with every element whose settings agree. The
//! connection lives on a worker thread, reconnects for ever and never holds up whoever publishes. What listens opens a
//! [`Subscription`]: topic filters and a bounded queue behind the same connection, asked for anew on every connection.

mod connection;
mod flight;
mod options;
mod publisher;
mod subscription;
mod tls;

use std::sync::LazyLock;

pub use connection::Status;
pub use options::{BrokerSettings, Options, OptionsError, Will, default_instance_id};
pub use publisher::{Message, Notice, Publisher, Stats};
pub use rumqttc::QoS;
pub use subscription::{Delivery, Signal, Subscription, SubscriptionStats};

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nvrmqtt",
        gst::DebugColorFlags::empty(),
        Some("MQTT connections of the NVR elements"),
    )
});

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod subscription_tests;
#[cfg(test)]
mod tests;
