"""What travels: topics, the signed envelope, the messages in it, and segments."""
