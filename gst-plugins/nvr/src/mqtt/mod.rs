//! MQTT connections, shared per process and broker.
