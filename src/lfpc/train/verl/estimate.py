def estimate(*a): return None
def report(*a): return ""
