"""The contract: who may reach whom, and where they are. Never imports Ryu."""
