"""Many runs or measurements that answer one question: sensitivity, allocation, properties of random graphs."""
