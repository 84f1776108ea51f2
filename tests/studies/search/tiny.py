"""A small GRU whose task is learned in a second, for searches in tests."""

TASK = """
    import torch
    from torch import nn
    from compressor import Task

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 12, batch_first=True)
            self.out = nn.Linear(12, 2)

        def forward(self, x):
            return self.out(self.rnn(x)[0][:, -1])

    def data(seed, count):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, 5, 3, generator=generator)
        return x, (x[:, :, 0].sum(1) > 0).long()

    class Sign(Task):
        inputs = {"x": {0: "batch", 1: "time"}}
        outputs = {"y": {0: "batch"}}
        length, min_length, max_length = 5, 1, 9

        def model(self):
            torch.manual_seed(3)
            net = Net()
            optimizer = torch.optim.Adam(net.parameters(), 2e-2)
            x, y = data(0, 256)
            for _ in range(40):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
            return net

        def example(self, batch, length):
            return (torch.randn(batch, length, 3, generator=torch.Generator().manual_seed(0)),)

        def batches(self, generator):
            x, y = data(0, 256)
            for chosen in torch.randperm(256, generator=generator).split(64):
                yield (x[chosen],), y[chosen]

        def loss(self, outputs, target):
            return nn.functional.cross_entropy(outputs, target)

        def evaluate(self, forward):
            x, y = data(1, 400)
            return (forward(x).argmax(1) == y).float()

        def validate(self, forward):
            x, y = data(2, 400)
            return (forward(x).argmax(1) == y).float()
"""
