"""What the behaviour tests share: loops by name, recording protocols, real peers, programs."""
