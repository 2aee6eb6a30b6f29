using System.Text;
using ModelHost.Agent.Metering;
using ModelHost.Gateway;

namespace ModelHost.Tests.Gateway;

public sealed class MultipartScannerTests
{
    private const int Mib = 1024 * 1024;
    private const string File = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n--c\r\n\0--b\r\n\r\n";
    private const string Model = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(Model + File + "--b--\r\n")]
    [InlineData(File + Model + "--b--")]
    [InlineData("\r\n" + File + File + Model + "--b--\r\nepilogue --b\r\n")]
    [InlineData("--b \r\ncontent-disposition:form-data;name=model\r\n\r\nm\r\n--b--")]
    [InlineData("--b\r\n\r\nno headers\r\n" + Model + "--b\r\nContent-Disposition: form-data; name=\"empty\"\r\n\r\n\r\n--b--")]
    [InlineData("--b\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n" + Model + "--b--", true)]
    [InlineData("--b\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\nfalse\r\n" + Model + "--b--")]
    public async Task The_model_is_found_before_and_behind_files_and_all_passes_as_it_came(string form, bool streams = false)
    {
        foreach (var piece in (int[])[1, 2, 3, 5, 7, 16, int.MaxValue])
        {
            var (read, _, error) = await ReadAsync(form, piece);

            error.ShouldBeNull($"in pieces of {piece}: {error}");
            await using (read)
            {
                (read!.Model, read.Streams).ShouldBe(("m", streams));
                (await SentAsync(read)).ShouldBe(form);
            }
        }
    }

    [Theory]
    [InlineData("", "invalid_form")]
    [InlineData("x", "invalid_form")]
    [InlineData("--b", "invalid_form")]
    [InlineData("--b--", "missing_model")]
    [InlineData(File + "--b--", "missing_model")]
    [InlineData(Model, "invalid_form")]
    [InlineData("--bx\r\n\r\n\r\n--b--", "invalid_form")]
    [InlineData(Model + Model + "--b--", "invalid_json")]
    [InlineData("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n\r\n--b--", "missing_model")]
    [InlineData("--b\nContent-Disposition: form-data; name=\"model\"\n\nm\n--b--", "invalid_form")]
    public async Task A_form_without_one_model_is_refused(string form, string code)
    {
        foreach (var piece in (int[])[1, 3, int.MaxValue])
        {
            var (_, status, error) = await ReadAsync(form, piece);

            (status, error).ShouldBe((400, code), $"in pieces of {piece}");
        }
    }

    [Fact]
    public async Task Names_headers_and_fields_are_bounded()
    {
        (await ReadAsync($"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{new string('m', 600)}\r\n--b--", 100)).Error.ShouldBe("missing_model");
        (await ReadAsync($"--b\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\n{new string('m', 10_000)}\r\n--b--", 100)).Error.ShouldBe("invalid_form");
        (await ReadAsync($"--b\r\nX: {new string('x', 20_000)}\r\n\r\n\r\n--b--", 100)).Error.ShouldBe("invalid_form");
    }

    [Theory]
    [InlineData(400 * 1024)]
    [InlineData(9 * Mib)]
    public async Task A_large_file_passes_before_and_behind_the_model(int length)
    {
        var file = $"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{new string('\n', length / 2)}{new string('x', length / 2)}\r\n";
        foreach (var form in (string[])[Model + file + "--b--", file + Model + "--b--"])
        {
            var (read, _, error) = await ReadAsync(form, 10_007);

            error.ShouldBeNull();
            await using (read)
            {
                read!.Model.ShouldBe("m");
                (await SentAsync(read) == form).ShouldBeTrue();
            }
        }
    }

    [Fact]
    public async Task A_second_model_behind_a_large_file_is_refused()
    {
        var form = $"{Model}--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{new string('x', 9 * Mib)}\r\n{Model}--b--";

        var (read, _, _) = await ReadAsync(form, 10_007);

        await using (read)
            await Should.ThrowAsync<MalformedBodyException>(() => SentAsync(read!));
    }

    private static async Task<(RequestBody? Body, int Status, string? Error)> ReadAsync(string form, int piece)
    {
        var (body, status, error) = await RequestBody.ReadAsync(
            new PieceStream(Encoding.UTF8.GetBytes(form), () => piece), null, 64 * Mib, Ct, new MultipartScanner("b"));
        return (body, status, error?.Code);
    }

    private static async Task<string> SentAsync(RequestBody body)
    {
        using var sent = new MemoryStream();
        await body.CopyToAsync(sent, Ct);
        return Encoding.UTF8.GetString(sent.ToArray());
    }
}
