"""The flow of any number of pairs: taken up after any interruption, on one machine or many."""
