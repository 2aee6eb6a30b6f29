using System.Text;
using ModelHost.Gateway.Grpc;

namespace ModelHost.Tests.Gateway.Grpc;

public sealed class WholeBodyTests
{
    [Theory]
    [InlineData(@"""plain""", false)]
    [InlineData(@"""é😀""", false)]
    [InlineData(@"""\ud83d\ude00""", false)]
    [InlineData(@"""\uD83D\uDE00 \n \u00e9 \\ud800""", false)]
    [InlineData(@"""\ud83d""", true)]
    [InlineData(@"""\ude00""", true)]
    [InlineData(@"""\ud83d \ude00""", true)]
    [InlineData(@"""\ud83d\n\ude00""", true)]
    [InlineData(@"""\ud83d\ud83d\ude00""", true)]
    [InlineData(@"""\\\ud83d""", true)]
    [InlineData(@"""\\ud83d""", false)]
    [InlineData(@"""\u12", false)]
    [InlineData(@"""\", false)]
    public void Half_of_a_character_is_found(string json, bool isHalf) => WholeBody.HasHalfPair(Encoding.UTF8.GetBytes(json)).ShouldBe(isHalf);

    [Fact]
    public async Task A_body_is_read_up_to_its_limit_whatever_was_said_of_its_length()
    {
        var token = TestContext.Current.CancellationToken;
        var json = Encoding.UTF8.GetBytes($$"""{"a":"{{new string('x', 200_000)}}"}""");

        using (var body = await WholeBody.ReadAsync(new MemoryStream(json), null, json.Length, token))
            body.Fields.RequiredText("a").Length.ShouldBe(200_000);
        (await Should.ThrowAsync<RefusedRequestException>(WholeBody.ReadAsync(new MemoryStream(json), null, json.Length - 1, token))).Status.ShouldBe(413);
        (await Should.ThrowAsync<RefusedRequestException>(WholeBody.ReadAsync(new MemoryStream(json), 5, 199_999, token))).Status.ShouldBe(413);
        (await Should.ThrowAsync<RefusedRequestException>(WholeBody.ReadAsync(new MemoryStream([(byte)'{']), 1, 100, token))).Error.Code.ShouldBe("invalid_json");
    }
}
