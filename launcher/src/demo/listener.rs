//! Subscribes to the events as anybody would.

use std::{net::SocketAddr, sync::mpsc, thread, time::Duration};

use nvr_core::event::DetectionEvent;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

/// Events as they come from the broker.
#[derive(Debug)]
pub(super) struct Listener {
    events: mpsc::Receiver<DetectionEvent>,
}

/// Events that may wait to be printed; beyond that the oldest are lost in the broker, not here.
const QUEUE: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(5);

impl Listener {
    /// Returns once the broker has confirmed the subscription, so that no event is missed.
    pub fn start(broker: SocketAddr, prefix: &str) -> Result<Self, String> {
        let mut options = MqttOptions::new("nvr-demo-listener", broker.ip().to_string(), broker.port());
        options.set_max_packet_size(1024 * 1024, 64 * 1024);
        let (client, mut connection) = Client::new(options, 16);
        let mut network = connection.eventloop.network_options();
        network.set_tcp_nodelay(true);
        connection.eventloop.set_network_options(network);
        client
            .subscribe(format!("{prefix}/detections/+"), QoS::AtMostOnce)
            .map_err(|error| format!("cannot subscribe: {error}"))?;
        let (sender, events) = mpsc::sync_channel(QUEUE);
        let (ready, subscribed) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("listener".into())
            .spawn(move || {
                // The client must live as long as its connection.
                let _client = client;
                for notification in connection.iter() {
                    match notification {
                        Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.try_send(Ok(()))),
                        Ok(Event::Incoming(Packet::Publish(publish))) => {
                            match serde_json::from_slice(&publish.payload) {
                                Ok(event) => {
                                    if sender.send(event).is_err() {
                                        return;
                                    }
                                }
                                Err(error) => tracing::warn!("not an event on {}: {error}", publish.topic),
                            }
                        }
                        Ok(_) => {}
                        Err(error) => {
                            let _ = ready.try_send(Err(format!("the broker does not answer: {error}")));
                            return;
                        }
                    }
                }
            })
            .map_err(|error| error.to_string())?;
        subscribed.recv_timeout(PATIENCE).unwrap_or_else(|_| Err("the broker does not answer".into()))?;
        Ok(Self { events })
    }

    pub fn next(&self, wait: Duration) -> Option<DetectionEvent> {
        self.events.recv_timeout(wait).ok()
    }
}
