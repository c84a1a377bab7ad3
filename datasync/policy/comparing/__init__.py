"""What a new policy does differently: who and what place gets to know more, or less, and on which terms."""
