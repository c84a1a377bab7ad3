"""Links to brokers: MQTT, memory for tests, and the broker that the demo embeds."""
